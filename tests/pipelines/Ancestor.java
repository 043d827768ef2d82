/** Starts a WAR of 2011 on a Java of today: its libraries ask who made Java, and know nobody who came after. */
public class Ancestor {
  public static void main(String[] arguments) throws Exception {
    System.setProperty("java.vm.vendor", "Oracle Corporation");
    Class.forName("Main").getMethod("main", String[].class).invoke(null, (Object) arguments);
  }
}

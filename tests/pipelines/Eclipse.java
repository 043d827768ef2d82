import java.io.File;
import java.net.InetSocketAddress;
import org.eclipse.jetty.security.HashLoginService;
import org.eclipse.jetty.server.Server;
import org.eclipse.jetty.webapp.WebAppContext;

/**
 * Starts the WAR of Eclipse Hudson in the web server that it has with it: WAR, port, folder with web.xml.
 * Its own program for that listens on every address, and takes a Java 17.0 for a Java 0.
 */
public class Eclipse {
  public static void main(String[] arguments) throws Exception {
    WebAppContext hudson = new WebAppContext(arguments[0], "/ci");
    hudson.setOverrideDescriptor(arguments[2] + "/web.xml");
    hudson.setTempDirectory(new File(arguments[2], "war"));
    hudson.getSecurityHandler().setLoginService(new HashLoginService("defaultLoginService"));
    Server server = new Server(new InetSocketAddress("127.0.0.1", Integer.parseInt(arguments[1])));
    server.setHandler(hudson);
    server.start();
    server.join();
  }
}
